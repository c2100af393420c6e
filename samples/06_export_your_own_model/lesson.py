"""From two PyTorch modules to a bundle: four patterns, a small classifier, and an exact diffusion model of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgepure
from edgepure_export import export_bundle

torch.manual_seed(0)
y, x = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
patterns = torch.stack([(x // 3) % 2, (y // 3) % 2, ((x + y) // 3) % 2, ((x // 3) + (y // 3)) % 2]).float()[:, None]


class Classifier(nn.Module):
    """Images [B, 1, 12, 12] in [0, 1] -> logits [B, 4]. Preprocessing belongs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU())
        self.head = nn.Linear(8 * 144, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image - 0.5).flatten(1))


class Epsilon(nn.Module):
    """x [B, 1, 12, 12] around [-1, 1], t [B] -> the noise in it, exactly, if the data are the four patterns."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("alpha_bar", torch.tensor(edgepure.ScheduleSpec().build().alphas_cumprod).float())
        self.register_buffer("clean", (2 * patterns - 1).flatten(1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = self.alpha_bar[t.long()][:, None]
        flat, alpha, sigma = x.flatten(1), alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        likelihood = alpha * (flat @ self.clean.T) / sigma**2  # of each pattern; their norms are equal
        expected = torch.softmax(likelihood, 1) @ self.clean
        return ((flat - alpha * expected) / sigma).reshape(x.shape)


classifier = Classifier()
optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-2)
for _ in range(100):
    labels = torch.randint(4, (32,))
    loss = F.cross_entropy(classifier((patterns[labels] + 0.2 * torch.randn(32, 1, 12, 12)).clamp(0, 1)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

bundle = export_bundle(classifier, Epsilon(), "out/patterns", image_size=12, channels=1, blocks=["features"])
with edgepure.load(bundle) as purifier:
    noisy = (0.7 * patterns + 0.3 * torch.rand(4, 1, 12, 12)).numpy()
    print("presets:", ", ".join(sorted(purifier.presets)))
    print("answers:", [r.label for r in purifier.classify(noisy, noise=1)], "for the patterns 0 to 3")
