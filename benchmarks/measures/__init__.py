"""What is measured. Each file has one function, which adds what it finds to the Series that it is given."""
