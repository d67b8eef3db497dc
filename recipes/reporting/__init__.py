"""The story of a run for a person: table, report with pictures, model card."""
