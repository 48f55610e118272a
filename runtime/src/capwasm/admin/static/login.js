// The token comes in the fragment of the printed address: it is sent to nobody, and kept in no history.
const given = /^#([\w-]{22,128})$/.exec(location.hash);
if (given) {
  history.replaceState(null, "", location.pathname);
  document.getElementById("token").value = given[1];
  document.querySelector("button").focus();
}
