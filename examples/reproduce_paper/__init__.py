"""The paper's experiment on your GPUs: commands, table and cost. README.md says how."""
