// Light or dark: the operating system's setting, or the last choice made with the button. Runs before the first paint.

const root = document.documentElement;

function show() {
  const saved = localStorage.getItem("theme");
  if (saved) root.dataset.theme = saved;
}

export function listen(button) {
  button.addEventListener("click", () => {
    const dark = getComputedStyle(root).colorScheme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    localStorage.setItem("theme", dark ? "light" : "dark");
    show();
  });
}

show();
