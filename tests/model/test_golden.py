"""`released` reproduces the recorded numbers of the public implementation, gradients included."""

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cradlevae.data.loading.minibatch import Minibatch, shared_rows
from cradlevae.model.config import ModelConfig
from cradlevae.model.globals import GlobalNoise, artifact_state, perturbation_state
from cradlevae.model.module import CradleModule, sparse_counts
from cradlevae.model.objective import loss_terms
from cradlevae.model.objective_inputs import Noise, SplitSizes
from cradlevae.nn.gamma_poisson import gamma_poisson_log_prob, gamma_poisson_rate

DEFAULT_FOLDER = Path(__file__).parents[3] / "shared" / "golden"
FOLDER = Path(os.environ.get("CRADLEVAE_GOLDEN", DEFAULT_FOLDER))
FILES = sorted(FOLDER.glob("*.npz"))
TERMS = {
    "loss_term_reconstruction": "reconstruction",
    "loss_term_mask": "mask",
    "loss_term_E": "embedding",
    "loss_term_qc_E": "artifact",
    "loss_term_z_basal": "basal",
    "cf_KLdivergence": "counterfactual",
}

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not FILES, reason=f"no golden files in {FOLDER} (set CRADLEVAE_GOLDEN)"),
]


class Golden:
    """One recorded problem, and the module with its weights."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.record = {key: file[key] for key in file.files}
        config = ModelConfig(
            n_latent=self.record["mask_logits"].shape[1],
            width=len(self.record["decoder/mlp.layers.0.0.bias"]),
            basal_width=len(self.record["basal_encoder/mlp.layers.0.0.bias"]),
            decode=str(self.record["in/decode"]),
            mask_prior=float(self.record["in/mask_prior"]),
            objective="released",
            counterfactual_weight=float(self.record["in/beta"]),
            alpha=None if math.isnan(self.record["in/alpha"]) else float(self.record["in/alpha"]),
            decoder_layers=self.n_layers("decoder"),
            basal_layers=self.n_layers("basal_encoder"),
            embedding_layers=self.n_layers("embedding_encoder"),
        ).resolved(combinations=True)
        n_perturbations = len(self.record["mask_logits"])
        n_classes = self.record["in/artifact"].shape[1]
        self.module = CradleModule(config, self.record["in/x"].shape[1], n_perturbations, n_classes)
        self.module.load_state_dict(self.weights())
        self.batch = self.make_minibatch()
        self.sizes = SplitSizes(
            self.tensor("in/n_cells_per_perturbation"), self.tensor("in/n_cells_per_artifact"), torch.ones(2)
        )
        first = self.global_noise("sample", draw=None)
        draw = self.module.sample_globals(first)
        basal = (self.tensor("sample/z_basal") - self.tensor("posterior/z_basal/loc")) / self.tensor(
            "posterior/z_basal/scale"
        )
        self.noise = Noise(first, basal, self.global_noise("sample_counterfactual", draw=draw))

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.record[key], dtype=np.float32))

    def n_layers(self, network: str) -> int:
        return sum(key.startswith(f"{network}/mlp.layers.") and key.endswith("bias") for key in self.record)

    def weights(self) -> dict[str, torch.Tensor]:
        state = {
            "basal_encoder.log_mean": self.tensor("in/log_mean"),
            "basal_encoder.log_std": self.tensor("in/log_std"),
            "mask.logits": self.tensor("mask_logits"),
            "likelihood.log_concentration": self.tensor("decoder/log_concentration"),
            "decoder.gene_linear.weight": self.tensor("decoder/normalized_mean_decoder.0.weight"),
            "decoder.gene_linear.bias": self.tensor("decoder/normalized_mean_decoder.0.bias"),
        }
        for network in ("decoder", "basal_encoder", "embedding_encoder", "artifact_encoder"):
            ours = {"embedding_encoder": "embedding.encoder", "artifact_encoder": "artifact.encoder"}.get(
                network, network
            )
            for kind in ("weight", "bias"):
                for layer in range(1, self.n_layers(network)):
                    recorded = f"{network}/mlp.layers.{layer}.0.{kind}"
                    state[f"{ours}.mlp.layers.{layer - 1}.{kind}"] = self.tensor(recorded)
                if network != "decoder":
                    heads = [self.tensor(f"{network}/{head}.{kind}") for head in ("mean_encoder", "log_var_encoder")]
                    state[f"{ours}.head.linear.{kind}"] = torch.cat(heads)
            state[f"{ours}.mlp.first.bias"] = self.tensor(f"{network}/mlp.layers.0.0.bias")
            inputs = self.module.get_submodule(f"{ours}.mlp.first").weights
            joint = self.tensor(f"{network}/mlp.layers.0.0.weight").T
            for index, part in enumerate(joint.split([len(weight) for weight in inputs])):
                state[f"{ours}.mlp.first.weights.{index}"] = part
        return state

    def make_minibatch(self) -> Minibatch:
        x, references = self.tensor("in/x"), self.tensor("in/reference_x")
        artifact = self.tensor("in/artifact")
        n = len(x)
        positives = x.nonzero()
        starts = torch.cat([torch.zeros(1, dtype=torch.long), (x > 0).sum(1).cumsum(0)])
        has = (references != 0).any(dim=1)
        reference = torch.where(has, torch.arange(n), -1)
        places = shared_rows(*(t.numpy() for t in (self.tensor("in/dosage"), artifact, reference, 1 - artifact)))
        return Minibatch(
            values=x[positives[:, 0], positives[:, 1]],
            genes=positives[:, 1],
            starts=starts,
            n_genes=x.shape[1],
            dosage=self.tensor("in/dosage"),
            condition=torch.arange(n),
            artifact=artifact,
            library_size=self.tensor("in/library_size"),
            references=references,
            reference=reference,
            flipped=1 - artifact,
            **{name: torch.from_numpy(place) for name, place in vars(places).items()},
        )

    def global_noise(self, sample: str, draw: object) -> GlobalNoise:
        """The random numbers that give the recorded draw."""
        logits = torch.logit(self.tensor(f"{sample}/mask_soft").double())
        mask = (logits - self.tensor("mask_logits").double()).float()
        first = GlobalNoise(
            mask,
            torch.zeros_like(self.tensor(f"{sample}/embedding")),
            torch.zeros_like(self.tensor(f"{sample}/artifact_embedding")),
        )
        with torch.no_grad():
            at_mask = self.module.sample_globals(first)
        return replace(
            first,
            embedding=(self.tensor(f"{sample}/embedding") - at_mask.q_embedding.loc) / at_mask.q_embedding.scale,
            artifact=(self.tensor(f"{sample}/artifact_embedding") - at_mask.q_artifact.loc) / at_mask.q_artifact.scale,
        )  # fmt: skip

    def difference(self, key: str, value: torch.Tensor) -> float:
        """max|value − recorded| / max|recorded|; the former alone where all that was recorded is 0."""
        recorded = self.record[key].astype(np.float64)
        found = value.detach().double().numpy()
        assert np.broadcast_shapes(found.shape, recorded.shape) == recorded.shape
        return float(np.abs(found - recorded).max() / (np.abs(recorded).max() or 1.0))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def test_golden_draws_and_posteriors(golden: Golden) -> None:
    module, batch = golden.module, golden.batch
    draw = module.sample_globals(golden.noise.first)
    second = module.sample_globals(golden.noise.second)
    z_p = perturbation_state(draw, batch.dosage, batch.condition)
    second_z_p = perturbation_state(second, batch.dosage, batch.condition)
    own, flipped = artifact_state(draw, batch.artifact), artifact_state(draw, batch.flipped)
    encoded, profiles = module.encode_counts(sparse_counts(batch), batch.references)
    posteriors = {
        "embedding": draw.q_embedding,
        "artifact_embedding": draw.q_artifact,
        "z_basal": module.encode(encoded, z_p, own)[0],
        "z_basal_counterfactual": module.encode(encoded, z_p, flipped)[0],
        "z_basal_reference": module.encode(profiles, second_z_p, artifact_state(second, batch.flipped))[0],
    }
    assert golden.difference("sample/mask", draw.mask) == 0
    assert golden.difference("sample_counterfactual/mask", second.mask) == 0
    assert golden.difference("sample/embedding", draw.embedding) <= 1e-5
    assert golden.difference("sample_counterfactual/embedding", second.embedding) <= 1e-5
    for name, posterior in posteriors.items():
        assert golden.difference(f"posterior/{name}/loc", posterior.loc) <= 1e-5, name
        assert golden.difference(f"posterior/{name}/scale", posterior.scale) <= 1e-5, name


def test_golden_likelihood(golden: Golden) -> None:
    module, batch = golden.module, golden.batch
    draw = module.sample_globals(golden.noise.first)
    z_p = perturbation_state(draw, batch.dosage, batch.condition)
    z_b = golden.tensor("sample/z_basal")
    for name, artifact in (("pass", 0.0), ("fail", 1.0)):
        z_a = artifact_state(draw, torch.full_like(batch.artifact, artifact))
        mean = batch.library_size[:, None] * module.decode_share(z_b, z_p, z_a)
        rate = gamma_poisson_rate(mean, module.likelihood.concentration)
        log_prob = gamma_poisson_log_prob(golden.tensor("in/x"), module.likelihood.concentration, rate)
        recorded = f"likelihood/{name}"
        assert golden.difference(f"{recorded}/concentration", module.likelihood.concentration) <= 1e-5
        assert golden.difference(f"{recorded}/rate", rate) <= 1e-5
        assert golden.difference(f"{recorded}/log_prob", log_prob) <= 1e-5


def test_golden_loss_terms(golden: Golden) -> None:
    terms = loss_terms(golden.module, golden.batch, golden.sizes, golden.noise)
    for recorded, name in TERMS.items():
        term = terms.get(name, torch.zeros(()))  # a term that is switched off counts as 0
        assert golden.difference(f"metric/{recorded}", term) <= 5e-6, name
    assert golden.difference("loss", sum(terms.values())) <= 5e-6


def test_golden_gradients(golden: Golden) -> None:
    module = golden.module
    sum(loss_terms(module, golden.batch, golden.sizes, golden.noise).values()).backward()
    first = torch.cat([weight.grad for weight in module.basal_encoder.mlp.first.weights])
    gradients = {
        "mask_logits": module.mask.logits.grad,
        "decoder_log_concentration": module.likelihood.log_concentration.grad,
        "basal_encoder_first_weight": first.T,
        "decoder_mean_weight": module.decoder.gene_linear.weight.grad,
    }
    for name, gradient in gradients.items():
        assert golden.difference(f"grad/{name}", gradient) <= 1e-4, name


def test_a_term_that_is_switched_off_counts_as_nothing(golden: Golden, tmp_path: Path) -> None:
    """A record with β = 0, made of the golden one: no counterfactual term, and all others as they were."""
    counterfactual = golden.record["metric/cf_KLdivergence"]
    changed = {
        "in/beta": np.float64(0),
        "metric/cf_KLdivergence": np.zeros_like(counterfactual),
        "loss": golden.record["loss"] - counterfactual,
    }
    np.savez(tmp_path / "beta0.npz", **(golden.record | changed))
    test_golden_loss_terms(Golden(tmp_path / "beta0.npz"))
