// An alert whose check is not in the table leads to the section as a whole.
const go = () => {
  const named = decodeURIComponent(location.hash.slice(1));
  const target = document.getElementById(named) ?? document.getElementById("an-alert-arrived");
  target.scrollIntoView();
  for (const row of document.querySelectorAll("tr.named")) row.classList.remove("named");
  target.closest("tr")?.classList.add("named");
};
addEventListener("hashchange", go);
go();
