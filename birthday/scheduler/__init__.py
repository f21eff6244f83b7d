"""The role scheduler: the planner makes messages, the dispatcher publishes them when due, the janitor tidies up."""
