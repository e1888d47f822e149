"""What is reasoned over: policy sets, their loader and their rendering into prompt text."""
