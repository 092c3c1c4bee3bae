"""The strategy contract and the training loop on Avalanche's templates."""
