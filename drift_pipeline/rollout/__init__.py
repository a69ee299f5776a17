"""Ship a new version safely: shadow, approval, canary, full; or back to the champion, with the reason.

Facts in, the next step out. Nothing here reads a clock, a store or a metric; only approvals touch files.
"""
