"""The embedded default: a small trained model, a corpus, the default budgets."""
