"""The role scheduler: the planner makes messages, the dispatcher publishes them in time, the janitor tidies up."""
