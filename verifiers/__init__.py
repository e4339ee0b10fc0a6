"""Verifiers: reward models, judges that write, self-evaluation, and several of them as one."""
