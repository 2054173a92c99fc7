"""One file a claim: `run(options) -> Claim`, and `verify(options) -> Claim` where it has files."""
