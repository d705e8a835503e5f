//! What the ids in a report mean: human labels, units and which direction is better.
