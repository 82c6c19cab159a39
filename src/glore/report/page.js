// The report: its solutions, as the run decided.
{
  const data = JSON.parse(document.getElementById("solutions-data").textContent);
  solutions.browser(data, (item) => solutions.recorded(item, data.threshold));
}
