"""What a method minimises: pure functions of tensors that know of no loop, network or data set."""
