"""Circuit breakers and retry budgets: pure decisions, no I/O."""
