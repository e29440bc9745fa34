"""The generative model, its guide, objectives, training and files."""
