"""What people compare runs for: scaling, models, settings; and the small XOR example."""
