"""The tiers of the efficacy benchmark; each module has ``run(methods, data) -> list[Row]``."""
