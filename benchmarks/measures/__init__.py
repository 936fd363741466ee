"""The measurements. Each function adds its values to the given Series."""
