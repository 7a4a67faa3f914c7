print("lorry")
