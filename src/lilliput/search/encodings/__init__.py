"""What evolves: how a row of integers describes a network. One file an encoding."""
