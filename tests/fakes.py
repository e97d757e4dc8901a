"""A face set small enough for tests: every identity a colour pattern, every image some noise."""

import torch


class ColourFaces:
    def __init__(self, num_identities=12, images_per_identity=6, image_size=16, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (num_identities, 3, image_size, image_size)
        patterns = torch.rand(shape, generator=generator) * 1.6 - 0.8
        self.labels = torch.arange(num_identities).repeat_interleave(images_per_identity)
        noise = torch.randn((len(self.labels), *shape[1:]), generator=generator)
        self.images = (patterns[self.labels] + 0.2 * noise).clamp(-1, 1)
        self.image_size = image_size
        self.num_identities = num_identities

    def __len__(self):
        return len(self.labels)

    def batch(self, indices):
        return self.images[torch.as_tensor(indices)]


def ir_weights(net, *, prefix=""):
    """The tensors of an `IResNet` under the names that TFace, AdaFace and CVLface give them."""
    renamed = {}
    for name, tensor in net.state_dict().items():
        name = name.replace("stem.", "input_layer.").replace("output.", "output_layer.", 1)
        name = name.replace(".residual.", ".res_layer.").replace(".shortcut.", ".shortcut_layer.")
        renamed[prefix + name] = tensor
    return renamed
