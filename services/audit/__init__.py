"""The audit service: the Merkle tree over each log, signed checkpoints, proofs, and the client that checks them. It follows the log."""
