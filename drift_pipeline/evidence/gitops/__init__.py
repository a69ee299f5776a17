"""The GitOps repository of a home: what the audit names, in signed commits, pushed to where nobody here can change it.

The folder is the working copy, and its files are the truth whether or not git is there. What changes them is in the
outbox; whoever ticks commits what waits, at once, and pushes it. An approval's commit is the approver's own.

`content.py` says what is committed, `repository.py` commits and pushes it, `publishing.py` is the door to it, and
`progress.py` tells how far it is.
"""
