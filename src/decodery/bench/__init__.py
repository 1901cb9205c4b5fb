"""Many prompts, many methods, one clock: suites, runners, the driver, figures and the report."""
