"""Jobs of a sweep in several processes on this machine (``+launcher=local``).

A server process imports torch and Lightning once; each job is forked from it (`multiprocessing`'s fork server). The
launching process divides cores and GPUs (`division`), starts the jobs and shows their progress (`launch`, `display`).
A job (`job`) talks to it through a pipe: it lends its core while it waits for a stage that another job trains, and
takes the pixels that another job has read (`sources`).
"""
