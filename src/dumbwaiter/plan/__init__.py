"""The capacity simulator: what some settings would cost, and how late answers would be."""
