//! Programs of one screen each: what Syncline looks like from the outside. They live in `examples/`.
