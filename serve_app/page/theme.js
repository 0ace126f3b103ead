// Light or dark: as the system has it, or as the button was used last. Runs before anything is painted.

const root = document.documentElement;

function show() {
  const kept = localStorage.getItem("theme");
  if (kept) root.dataset.theme = kept;
}

export function listen(button) {
  button.addEventListener("click", () => {
    const dark = getComputedStyle(root).colorScheme === "dark" || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    localStorage.setItem("theme", dark ? "light" : "dark");
    show();
  });
}

show();
