"""The encoder on a GPU gives the vectors that it gives on the CPU. Skipped where there is no GPU."""

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_vectors_are_those_of_the_cpu(tiny_encoder_folder, precision, tolerance):
    from actors.encoder import Encoder

    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 96, 96), dtype=np.uint8)
    on_cpu = Encoder.load(tiny_encoder_folder)
    on_gpu = Encoder.load(tiny_encoder_folder, precision=precision, num_gpus=1)
    assert on_gpu.fingerprint == on_cpu.fingerprint
    np.testing.assert_allclose(on_gpu.encode_images(pixels), on_cpu.encode_images(pixels), atol=tolerance)
    texts = ["a red sailboat at sunset", "two dogs"]
    np.testing.assert_allclose(on_gpu.encode_texts(texts), on_cpu.encode_texts(texts), atol=tolerance)


def test_a_session_declares_the_gpus_of_the_machine(ray_cluster):
    import ray

    from cluster.profile import Stage
    from cluster.session import require

    assert ray.cluster_resources()["GPU"] == torch.cuda.device_count()
    require({"embed": Stage(num_gpus=1)})
