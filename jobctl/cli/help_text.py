"""What `jobctl --help` prints. Written by `python -m jobctl.cli.program`; edit that module instead."""

TEXT = """\
Usage: jobctl [OPTIONS] COMMAND [ARGS]...

  Batch jobs that collect simulated episodes, train on them and judge what was
  trained.

Options:
  --version                   Show the version and exit.
  --backend local|kubernetes  Where jobs run. [$JOBCTL_BACKEND; else local
                              where no cluster is configured]
  --context NAME              The kubeconfig's context. [the current one]
  -n, --namespace NAME        The namespace of the jobs. [the context's]
  --debug                     Show a traceback with an error.
  -h, --help                  Show this message and exit.

Commands:
  submit      Start a job, or several in order from a file.
  render      Print exactly what submit would send.
  list        Show every job and its state.
  status      Show one job: state, reason, progress, replicas, what to do
              next.
  logs        Print what the replicas wrote.
  events      Show what the cluster did about a job.
  wait        Wait until a job ends; its end is the exit status.
  cancel      Stop a job and mark it as not wanted.
  suspend     Stop a job for now; its pods save first.
  resume      Go on after suspend or cancel.
  retry       Start an ended or interrupted job again, from its last save.
  delete      Forget a job. What it wrote on its volume stays.
  results     Show a run's results; fetch them, plots and weights too.
  data        List a dataset's episodes; draw one of them.
  doctor      Check what jobs need of the cluster, and say what to do.
  profiles    List the GPU profiles.
  completion  Print the completion script of a shell.

  Exit status: 0 fine · 1 the job failed · 2 usage · 3 not found · 4 cluster
  unreachable · 5 refused · 124 wait's --timeout passed · 130 you stopped
  watching with Ctrl-C (no failure: the job goes on).
"""
