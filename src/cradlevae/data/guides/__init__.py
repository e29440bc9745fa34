"""Guide RNAs: files that count them, the gene that each targets, and the cells that each perturbs."""
