"""Where a store lies, and what its tables remember about other folders."""
