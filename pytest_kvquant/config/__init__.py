"""Settings, options, budgets, floors, expectations, patterns."""
