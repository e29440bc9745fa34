"""The installed package, from simulated counts to a ranked table; run by `.ci/wheel` outside of the clone."""

import subprocess
import sys
import warnings
from pathlib import Path

import cradlevae as cv

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of so few cells
    assert "site-packages" in str(Path(cv.__file__)), cv.__file__
    adata = cv.simulate(n_cells=400, n_genes=60, n_perturbations=4, n_combinations=4, seed=0)
    cv.annotate_qc(adata, criteria=("umi", "genes"))
    model = cv.CradleVAE(adata, split=cv.split(adata, "combinations"), n_latent=4, width=16)
    model.train(max_epochs=2, progress=False)
    model.save("run")
    table = cv.effects_table(cv.load("run").effects())
    assert len(table) > 60
    assert cv.evaluate(model, adata, denoiser=False)["value"].notna().any()
    adata.write_h5ad("data.h5ad")
    command = [sys.executable, "-m", "cradlevae", "effects", "run", "--output", "effects.csv"]
    subprocess.run(command, check=True)
    assert Path("effects.csv").stat().st_size > 1000
