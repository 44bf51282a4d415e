"""Where prices come from: the CoinGecko client, the recording, the simulator, and a stand-in server for the API."""
