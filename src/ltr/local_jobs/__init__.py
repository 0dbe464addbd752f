"""Jobs of a sweep in several processes on this machine (``+launcher=local``).

A server process imports torch and Lightning once (`server`, `preload`); each worker is forked from it
(`multiprocessing`'s fork server) and runs one job after another (`worker`, `pool`). The launching process divides cores
and GPUs (`division`), hands out the jobs and shows their progress (`launch`, `display`). A job talks to it through the
worker's pipe: it lends its core while it waits for a stage that another job trains, and takes the pixels that another
job has read (`sources`).
"""
