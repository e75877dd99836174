"""The pure part of the audit: the tree, its proofs, and checkpoints as text."""
