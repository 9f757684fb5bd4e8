"""What tools/bench is made of: the servers that are measured, the rows, and how they are printed."""
