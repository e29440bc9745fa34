"""Random draws of a trained model, and effects estimated from them: what queries and the end of training share."""
