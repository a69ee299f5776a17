"""What should be done about drift: facts in, one of retrain, hotfix_retrain, suggest or ignore out, with reasons.

The rules are Rego (`bundle/`); Python gathers facts, asks an engine (`engines/`) and believes only a whole answer.
"""
