"""What torchrun and SLURM tell of the processes that train together."""

import os
import unittest
from unittest import mock

from nlstseg_training.fitting.machine import started_processes
from NLSTSegLib.errors import InputError


class ProcessesTest(unittest.TestCase):
    def test_processes_of_a_node_and_nodes(self):
        for told, expected in (
            ({}, (1, 1)),
            ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (4, 2)),
            ({"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, (1, 1)),
            ({"SLURM_NTASKS": "6", "SLURM_NTASKS_PER_NODE": "3", "SLURM_NNODES": "2"}, (3, 2)),
            ({"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "bash", "SLURM_NNODES": "1"}, (1, 1)),
        ):
            with self.subTest(told), mock.patch.dict(os.environ, told, clear=True):
                self.assertEqual(started_processes(), expected)

    def test_a_slurm_job_that_does_not_tell_its_nodes_is_refused_in_a_sentence(self):
        told = {"SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "train.sh"}
        with (
            mock.patch.dict(os.environ, told, clear=True),
            self.assertRaisesRegex(InputError, "--ntasks=2; ask for --ntasks-per-node"),
        ):
            started_processes()


if __name__ == "__main__":
    unittest.main()
