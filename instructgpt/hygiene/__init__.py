"""Clean data from raw: rules of the paper's appendix A and others, each with a report."""
