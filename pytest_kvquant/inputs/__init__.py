"""Model, geometry, corpus, and the stored logits of the reference."""
