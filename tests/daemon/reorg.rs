//! Forks that the node follows: of any depth, through P2P and by hand.
