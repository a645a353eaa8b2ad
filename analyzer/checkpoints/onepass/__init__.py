"""What one pass over a tensor's elements gathers, in numpy or compiled, and what follows from it."""
