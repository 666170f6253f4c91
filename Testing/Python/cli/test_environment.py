"""A few of the environments of ``Testing/fuzzing/environment.py``: a whole result or one sentence comes of each."""

import os
import unittest

from fuzzing import environment


@unittest.skipUnless(os.path.exists("/dev/full"), "the streams of these runs need /dev/full")
class EnvironmentTest(unittest.TestCase):
    def test_odd_environments_give_a_whole_result_or_one_sentence(self):
        faults: list[str] = []
        outcomes = environment.run_all(0, 3, seed=0, tell=faults.append)
        self.assertEqual(faults, [])
        self.assertEqual(set(outcomes), {"result", "refused"})


if __name__ == "__main__":
    unittest.main()
