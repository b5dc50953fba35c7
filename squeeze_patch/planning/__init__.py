"""What a squeeze costs and saves: plans, how they are found, and their arithmetic."""
