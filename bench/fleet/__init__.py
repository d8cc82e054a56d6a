"""A fleet that exists in a benchmark only: thousands of agents with their real interface, and one real colony."""
